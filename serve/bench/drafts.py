"""What a server counts of speculative decoding while it is measured, from its /metrics.

Under vLLM's names, of metrics and of result fields. Servers that count no drafts give no field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serve.bench.http_client import HttpError, Server


@dataclass
class Drafts:
    """Counts since the server's start."""

    drafts: float = 0
    draft_tokens: float = 0
    accepted_tokens: float = 0
    accepted_by_position: dict[int, float] = field(default_factory=dict)

    def since(self, before: "Drafts") -> dict[str, Any]:
        """The result fields of what was drafted between the two; none if nothing was."""
        drafts, tokens = self.drafts - before.drafts, self.draft_tokens - before.draft_tokens
        accepted = self.accepted_tokens - before.accepted_tokens
        if drafts <= 0 or tokens <= 0:
            return {}
        positions = self.accepted_by_position
        return {
            "spec_decode_acceptance_rate": 100 * accepted / tokens,
            "spec_decode_acceptance_length": 1 + accepted / drafts,
            "spec_decode_num_drafts": int(drafts),
            "spec_decode_draft_tokens": int(tokens),
            "spec_decode_accepted_tokens": int(accepted),
            "spec_decode_per_position_acceptance_rates": [
                (positions[place] - before.accepted_by_position.get(place, 0)) / drafts
                for place in sorted(positions)
            ],
        }


async def read_drafts(server: Server, headers: Mapping[str, str]) -> Drafts:
    """What the server has counted so far; nothing if it does not say."""
    try:
        text = (await server.fetch("GET", "/metrics", headers=headers)).decode()
        return parse_drafts(text)
    except (HttpError, OSError, ValueError):
        return Drafts()


def parse_drafts(text: str) -> Drafts:
    """The sums over all engines; raises ValueError for what is no text of metrics."""
    found = Drafts()
    for sample in (
        each for family in text_string_to_metric_families(text) for each in family.samples
    ):
        match sample.name.removesuffix("_total"):
            case "vllm:spec_decode_num_drafts":
                found.drafts += sample.value
            case "vllm:spec_decode_num_draft_tokens":
                found.draft_tokens += sample.value
            case "vllm:spec_decode_num_accepted_tokens":
                found.accepted_tokens += sample.value
            case "vllm:spec_decode_num_accepted_tokens_per_pos":
                place, known = int(sample.labels["position"]), found.accepted_by_position
                known[place] = known.get(place, 0) + sample.value
    return found
