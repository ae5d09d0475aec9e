"""Why a synthesized row was refused, and how a try at a model ended, in words."""

from flows.report.text import label

REFUSED = {
    # no reply to use
    "too_long": "the prompt, or the reply to be checked, was too long",
    "bad_request": "the endpoint took the request for a mistake",
    "unreachable": "the endpoint gave no answer after all tries",
    "over_budget": "the budget was spent before it was asked",
    "filtered": "the endpoint's content filter held the reply back",
    "empty": "the reply was empty",
    "cut_off": "the reply was cut at its token limit",
    "prompt_too_long": "the prompt did not fit the model and lost its beginning",
    # seeds that nothing can be made of
    "no_question": "the seed asks nothing",
    "no_reply": "the seed has no reply",
    "no_reference": "the seed has no reference to check a reply against",
    "no_exchange": "the seed is not a question and its reply",
    "not_one_exchange": "the seed is not one question and one reply",
    "no_passage": "the seed holds no passage",
    "passage_too_short": "the passage is too short to ask about",
    "not_sampled": "the passage was not drawn",
    "duplicate_seed": "the same seed came before",
    "wordplay": "the question is about the words or letters of English",
    "label_in_text": "the text holds a label that separates the parts of a reply",
    "unreadable_row": "the row could not be read",
    # verdicts
    "wrong": "the answer is wrong",
    "no_answer": "no answer was found in the reply",
    "ambiguous": "the reply gives several answers",
    "unparsed": "the answer could not be read",
    "timeout": "checking it took too long",
    "memory": "checking it took too much memory",
    "crashed": "its code ended with an error",
    "exited": "its code ended by itself before the tests did",
    "judge_unclear": "the judge's answer was neither yes nor no",
    "judge_prompt_too_long": "what the judge was to read did not fit it",
    "gold_not_right": "the seed's own reply does not pass the check",
    # rejection sampling
    "duplicate": "the same or nearly the same was kept before",
    "surplus": "right, but enough were kept already",
    "uncovered": "no try at this question was right",
    "label_suspect": "many tries agree on another answer: the reference is suspect",
    "budget_spent": "the budget of tries was spent without a right one",
    "unanswered": "no try at this question was answered",
    "longer": "a shorter right reply to the same question was kept",
    "superseded": "a better one took its place",
    "over_most": "beyond the most rows of one question",
    "over_share": "beyond the largest share that its class may have",
    # rewriting and translating
    "other_language": "it is in another language than asked for",
    "length_ratio": "its length is too far from the original's",
    "round_trip": "translated back it is too far from the original",
    "tags_lost": "a protected part (number, code, address) was lost",
    "numbers_changed": "its numbers are not the original's",
    "names_changed": "its names are not the original's",
    "meaning_changed": "its meaning is too far from the original's",
    "too_close": "it is too close to the original",
    "too_far": "its wording is too far from the original",
    "too_few_words": "it has too few words that may be edited",
    "unchanged": "nothing was changed",
    "same_as_earlier": "it is the same as an earlier one",
    # questions about passages
    "missing_summary": "the reply has no summary",
    "missing_question": "the reply has no question",
    "question_too_long": "the question is too long",
    "not_extractive": "the summary is not taken from the passage",
    "near_copy": "the question is nearly a copy of the passage or an example",
    "unanswerable": "the passage does not answer the question",
    # required lengths
    "no_length": "no length is asked for",
    "several_lengths": "several lengths are asked for",
    "off_length": "the reply is too far from the length asked for",
    "empty_reply": "the seed's reply is empty",
    "too_short": "the length asked for is too short",
    "refusal": "the reply is a refusal",
    # tables as tasks
    "licence_missing": "no licence is known",
    "licence_refused": "its licence is one of those to leave out",
    "no_rows": "the table is empty",
    "media": "a column holds images or sound",
    "too_few_fields": "fewer than two columns can be shown",
    "no_description": "there is no description to ask with",
    "parse_fail": "the reply holds no tasks",
    "malformed_task": "the task lacks a part",
    "multi_output": "the task has several output columns",
    "invalid_field": "the task names a column that was not shown",
    "overlap": "the output of the task is among its inputs",
    "duplicate_instruction": "an earlier task has the same instruction",
    "too_many_tasks": "beyond the most tasks of one reply",
    "same_task": "the same task was designed before",
    "output_not_scalar": "an output is a list or nested",
    "no_output": "the task has no output column",
    "no_values": "all outputs are empty",
    "one_label": "all outputs are the same",
    "unbalanced": "one of few labels is too common",
    "no_input": "the input is empty",
    "no_value": "the output is empty",
    # instructions that grow out of seeds
    "no_task": "the seed is not an instruction with its reply",
    "no_document": "the seed has no text to ask about",
    "not_drawn": "no prompt showed this seed",
    "not_used": "this seed was not used",
    "not_reached": "the job ended before it had its number",
    "used_up": "all seeds were used: the job ended",
    "stalled": "nothing new came any more: the job ended",
    "no_list": "the reply holds no list of instructions",
    "too_many_words": "it has too many words",
    "blacklisted": "it names what a text model cannot do",
    "write_a_program": 'it begins with "Write a program"',
    "starts_with_punctuation": "it begins with a punctuation mark",
    "not_ascii": "it begins with a character that is not ASCII",
    "similar": "it is too similar to an earlier one",
    "kind_unclear": "the reply does not say whether it is a classification",
    "no_instances": "the reply holds no instance",
    "truncated_instance": "the instance was cut off",
    "same_as_input": "the output is its input",
    "empty_output": "the output is empty",
    "ends_with_colon": "the output ends with a colon",
    "duplicate_instance": "the instance is there already",
    "contradictory_outputs": "the same input has different outputs",
    "missing_section": "the reply lacks a part",
    "unusable_document": "the model finds the text unfit",
    # rewritten instructions
    "several_questions": "the seed has several questions",
    "no_gain": "it says nothing that its parent does not",
    "sorry": "the reply is a short apology",
    "only_stop_words": "the reply has no words but the most common",
    # thoughts before replies
    "thinks_already": "the seed's reply holds a thought already",
    "tag_in_thought": "the thought holds a tag that would end it",
    "wrong_form": "the thought lacks the marks of its pattern",
    "meta_talk": "the thought speaks of the task it was given",
    "copies_response": "the thought copies the response",
    "too_short_thought": "the thought is too short for the response",
    "too_long_thought": "the thought is too long for the response",
    "does_not_fit": "the judge says that the thought does not lead to the response",
    "incomplete_quintuple": "not all patterns of this seed were written",
    # inputs like given ones
    "several_turns": "the seed has several turns",
    "reference": "the seed served to tell real inputs from made ones",
    "pilot": "it served to tell real inputs from made ones",
    "copy": "it is a seed's own",
    "unlike": "it is not like the seeds",
    "enough": "there were enough rows already",
    "unreadable": "the reply holds no list",
    "unreadable_verdict": "the model said neither yes nor no",
    "too_few_candidates": "there were too few inputs to tell real from made: the job ended",
    "acceptance_too_low": "too few were accepted: the job ended",
    # tests of finished rows
    "not_right": "the verifier says that it is not right",
    "not_english": "the seed is not in English",
    "low_score": "the judge's mark is too low",
    "disagreement": "the second model's reply says something else",
    "blank_reply": "the reply is blank",
    "ai_disclaimer": "the reply speaks of itself as a language model",
    "repeated_lines": "the reply repeats lines",
    "repeated_words": "the reply repeats words",
    "unclosed_fence": "a block of code has no end",
    "mojibake": "characters were read in the wrong encoding",
    "lost_characters": "characters were lost",
    # graded variants
    "echoes_prompt": "it repeats words of the prompt that asked for it",
    "no_instruction": "the reply has no instruction",
    "no_response": "the reply has no response",
    "nothing_to_rank": "there are too few variants to rank",
    "score_missing": "the judge gave it no score",
    "score_not_a_number": "the judge's score is not a number",
    "score_of_no_variant": "the judge scored a variant that is not there",
    "score_out_of_range": "the judge's score is out of range",
    "score_twice": "the judge scored it twice",
}

ASKED = {"judge": "asking the judge", "second": "asking the second model"}
"""Whose failure a reason names that begins so."""

OUTCOMES = {
    "ok": "answered",
    "length": "answered, cut at its token limit",
    "filtered": "held back by a content filter",
    "anomaly": "an empty or unreadable reply",
    "foreign": "a page, and no reply of a model",
    "transient": "server or network fault",
    "throttle": "too many requests",
    "fatal": "stopped: a person must act",
    "too_long": "the prompt is too long",
    "bad_request": "taken for a mistake",
    "": "not known: the run was killed",
}
ANSWERED = ("ok", "length", "filtered")
"""Outcomes after which a request is not tried again."""


def refused_because(reason: str) -> str:
    """The reason of a refused row in words; one that is not known is repeated as it is."""
    if reason in REFUSED:
        return REFUSED[reason]
    asked, _, rest = reason.partition("_")
    if asked in ASKED and rest in REFUSED:
        return f"{ASKED[asked]}: {REFUSED[rest]}"
    return f"it holds personal data: {label(rest)}" if asked == "pii" else label(reason).replace("_", " ")


def ended_as(outcome: str) -> str:
    """The class of a try in words; classes of other versions are one."""
    return OUTCOMES.get(outcome, "another end")
