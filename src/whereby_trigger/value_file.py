"""A file that holds the value of one setting, such as a secret that Docker or Kubernetes mounts."""

from whereby_trigger.errors import ConfigError

LARGEST_FILE = 64 * 1024


def read_file(variable: str, path: str) -> str:
    """Return the text of a file that an environment variable names, without a BOM and the white space around it.

    Raises ConfigError if it cannot be read, is not UTF-8, or is too large to hold a setting.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{variable} names {path!r}, which cannot be read: {reason}") from error
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{variable} names {path!r}, which is too large: the file must hold the value alone")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{variable} names {path!r}, which is not UTF-8: write the value alone into it") from None
