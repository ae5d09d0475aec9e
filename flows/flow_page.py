"""Where a person looks at the flow run that this code belongs to."""

import os

from prefect import runtime


def flow_page() -> str | None:
    """The address of this flow run's page; None outside a flow run."""
    api = os.environ.get("PREFECT_API_URL", "")
    run = runtime.flow_run.id
    return f"{api.removesuffix('/api')}/runs/flow-run/{run}" if api and run else None
