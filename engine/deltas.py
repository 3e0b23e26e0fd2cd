"""What a step's results add to its requests: tokens, log-probabilities, hidden states, experts.

Owns the ends of requests that these bring. Knows no device and no masks.
"""

from engine.grammar.steering import report
from engine.messages import RequestDelta, end_without_number
from engine.request import Request, Status
from engine.runner import Launched, Results
from engine.sampling.sampler import NOT_A_NUMBER
from engine.scheduling.plan import Chunk, Draft
from engine.scheduling.scheduler import Scheduler
from engine.speculation.acceptance import accept
from engine.vectors.hidden_states import states_of_chunk, states_of_row
from engine.vectors.routed_experts import experts_of_chunk, experts_of_row


def collect(scheduler: Scheduler, launched: Launched, results: Results) -> list[RequestDelta]:
    """Hand a step's tokens to their requests; rows of requests that ended meanwhile are dropped."""
    deltas, plan = [], launched.plan
    drafts = accept(plan, results.token_ids) if plan.drafts else {}
    for row, (request, count) in enumerate(zip(plan.decoding, plan.counts, strict=True)):
        request.num_in_flight -= count
        if request.status is not Status.FINISHED:
            newest = len(request.token_ids) - 1  # which this row has computed
            draft = drafts.get(row) if drafts else None
            deltas.append(delta := _sampled(scheduler, request, results, row, count, draft))
            if results.hidden is not None:
                delta.hidden_states = states_of_row(request, results.hidden[:, row], newest, count)
            if results.routed is not None:
                delta.routed_experts = experts_of_row(
                    request, results.routed[:, row], newest, count
                )
    row = token = len(plan.decoding)
    for chunk in plan.chunks:
        request = chunk.request
        request.num_in_flight -= chunk.samples
        if request.status is not Status.FINISHED:
            delta = _delta(scheduler, chunk, results, row)
            if results.hidden is not None:
                delta.hidden_states = states_of_chunk(chunk, results.hidden[0, token:])
            if results.routed is not None:
                delta.routed_experts = experts_of_chunk(chunk, results.routed[0, token:])
            if chunk.samples or chunk.scored or delta.hidden_states or delta.routed_experts:
                deltas.append(delta)
        row, token = row + chunk.num_logit_rows, token + chunk.count
    return deltas


def _delta(scheduler: Scheduler, chunk: Chunk, results: Results, row: int) -> RequestDelta:
    """What rows row .. of the logits add to the chunk's request."""
    request, scored = chunk.request, len(chunk.scored)
    if chunk.samples:
        delta = _sampled(scheduler, request, results, row + scored)
    else:
        delta = RequestDelta(request_id=request.request_id)
    if scored:
        count = request.params.prompt_logprobs or 0
        delta.prompt_logprobs = [results.top(each, count) for each in range(row, row + scored)]
    return delta


def _sampled(
    scheduler: Scheduler,
    request: Request,
    results: Results,
    row: int,
    count: int = 1,
    draft: Draft | None = None,
) -> RequestDelta:
    """What a row that sampled `count` tokens adds to its request, and what the rows of a draft that
    was right add to that; with one of these tokens the request may end."""
    tokens = results.token_ids[row][:count]
    if draft is not None:
        tokens += [results.token_ids[each][0] for each in draft.accepted]
    delta = RequestDelta(request_id=request.request_id, new_token_ids=tokens)
    if request.num_generated == 0:
        delta.queue_seconds = request.queue_seconds
        delta.num_cached_tokens = request.num_cached_tokens
        delta.num_external_tokens = request.num_external_tokens
    if request.num_preemptions:
        delta.num_preemptions = request.num_preemptions
    for place, token in enumerate(tokens, 1):
        if token == NOT_A_NUMBER:
            del tokens[place - 1 :]
            end_without_number(delta)
            scheduler.finish(request)
            break
        reason = request.append(token)
        if reason is not None:
            del tokens[place:]
            delta.finish_reason = reason
            if reason == "stop" and not request.ended_by_eos:
                delta.stop_token_id = token
            scheduler.finish(request)
    if draft is not None:
        delta.num_drafted, delta.num_accepted = len(draft.token_ids), max(0, len(tokens) - 1)
    if request.aligned is not None:
        delta.alignment = request.aligned.read(request.num_prompt_tokens)
        request.aligned = None
    if request.constraint is not None:
        report(request, delta)
    if request.params.logprobs is not None:
        most, ids = request.params.logprobs, request.params.logprob_token_ids
        places = [(row, turn) for turn in range(count)]
        if draft is not None:
            places += [(each, 0) for each in draft.accepted]
        delta.logprobs = [
            results.top(each, most, turn) if ids is None else results.named(each, ids, turn)
            for each, turn in places[: len(tokens)]
        ]
    return delta
