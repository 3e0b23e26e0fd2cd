"""Options about templates, answers and what requests may ask for; as in `options`."""

from typing import Annotated

import typer

_MODEL, _PANEL, _SAMPLING, _SERVER = "Model", "Answers", "Sampling", "Server"

Tokenizer = Annotated[
    str | None,
    typer.Option(help="Folder or hub name, if the model's is elsewhere.", rich_help_panel=_MODEL),
]
DefaultChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='What requests pass to the chat template if they do not say it themselves: '
        '{"enable_thinking": false}.',
        rich_help_panel=_PANEL,
    ),
]  # fmt: skip
ChatTemplateContentFormat = Annotated[
    str,
    typer.Option(
        help="How the chat template is given a message: string, openai (a list of parts), or auto: "
        "as it takes it.",
        rich_help_panel=_PANEL,
    ),
]
ResponseRole = Annotated[
    str, typer.Option(help="Role of the turns that are answered.", rich_help_panel=_PANEL)
]
OverrideGenerationConfig = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='Sampling defaults that go before the model\'s: {"temperature": 0.5}.',
        rich_help_panel=_SAMPLING,
    ),
]
StructuredOutputsConfig = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='For all requests: {"disable_any_whitespace": true, "reasoning_parser": "qwen3"}; the '
        "backend is guidance.",
        rich_help_panel=_PANEL,
    ),
]
MaxLogprobs = Annotated[
    int,
    typer.Option(help="Log-probabilities that a request may ask for.", rich_help_panel=_SAMPLING),
]
LogprobsMode = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="Log-probabilities are the model's (raw_logprobs), or of what the sampling options "
        "leave to draw from (processed_logprobs), which return_sampling_mask needs.",
        rich_help_panel=_SAMPLING,
    ),
]
EnableReturnHiddenStates = Annotated[
    bool,
    typer.Option(
        "--enable-return-hidden-states/--no-enable-return-hidden-states",
        help="Let requests ask for the last layer's states (return_hidden_states).",
        rich_help_panel=_PANEL,
    ),
]
EnableReturnRoutedExperts = Annotated[
    bool,
    typer.Option(
        "--enable-return-routed-experts/--no-enable-return-routed-experts",
        help="Tell with every answer which experts its tokens took (routed_experts).",
        rich_help_panel=_PANEL,
    ),
]
EnablePromptEmbeds = Annotated[
    bool,
    typer.Option(
        "--enable-prompt-embeds/--no-enable-prompt-embeds",
        help="Take prompts that are embeddings: prompt_embeds of completions, input_embeds of "
        "/generate.",
        rich_help_panel=_PANEL,
    ),
]
RootPath = Annotated[
    str,
    typer.Option(
        metavar="PATH", help="Where a proxy has put the server: /models/small.",
        rich_help_panel=_SERVER,
    ),
]  # fmt: skip
EnableRequestIdHeaders = Annotated[
    bool,
    typer.Option(
        "--enable-request-id-headers/--no-enable-request-id-headers",
        help="Responses repeat their request's X-Request-Id; without one they get one of ours.",
        rich_help_panel=_SERVER,
    ),
]

MaxTokens = Annotated[
    int | None, typer.Option(help="Most tokens to generate.", rich_help_panel=_SAMPLING)
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.", rich_help_panel=_SAMPLING)]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Only the likeliest tokens, up to this probability.", rich_help_panel=_SAMPLING
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(help="Only so many of the likeliest tokens.", rich_help_panel=_SAMPLING),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Text that ends it; repeatable.", rich_help_panel=_SAMPLING),
]
