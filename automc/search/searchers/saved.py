"""The files of a saved agent: `agent.json`, its card, and `agent.safetensors`, its network."""

from __future__ import annotations

from pathlib import Path

from automc.errors import ConfigError

CARD, NETWORK = "agent.json", "agent.safetensors"


def read_saved(folder: Path) -> tuple[str, bytes]:
    """Card and network as they stand in `folder`. Raises `ConfigError` where there is no saved agent."""
    try:
        return (folder / CARD).read_text(), (folder / NETWORK).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"agent: {folder} holds no saved agent ({CARD} and {NETWORK}): {error}") from error
