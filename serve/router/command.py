"""`ingot router`: its options."""

from typing import Annotated

import typer

from serve.commands import operation_options, options


def router(
    backend: Annotated[
        list[str], typer.Option(help="URL of a server; repeatable: http://10.0.0.1:8000.")
    ],
    host: options.Host = "127.0.0.1",
    port: options.Port = 8080,
    allowed_hosts: options.AllowedHosts = None,
    api_key: options.ApiKey = None,
    try_timeout: operation_options.TryTimeout = 600.0,
    fallback_url: operation_options.FallbackUrl = None,
    max_body_bytes: options.MaxBodyBytes = 8 * 1024 * 1024,
    max_audio_clip_filesize_mb: options.MaxAudioClipFilesizeMb = 25,
    shutdown_timeout: options.ShutdownTimeout = 30.0,
    uvicorn_log_level: options.UvicornLogLevel = "warning",
) -> None:
    """Spread requests over several servers; each goes where its beginning is cached."""
    given = dict(locals())
    from serve.fallback.apis import parse_fallbacks
    from serve.router.app import run_router
    from serve.router.settings import make_router_settings

    backends, keys = tuple(given.pop("backend")), tuple(given.pop("api_key") or ())
    given["fallbacks"] = parse_fallbacks(given.pop("fallback_url"))
    given["allowed_hosts"] = options.parse_hosts(given["allowed_hosts"])
    raise typer.Exit(run_router(make_router_settings(**given, backends=backends, api_keys=keys)))
