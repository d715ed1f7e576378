"""Names that mean harm where a name becomes a path, a pattern, a line of a log or a word of a header."""

from __future__ import annotations

from typing import Final

CANARY: Final = "canary.txt"
"""A file beside the store, which no name may reach."""

NAMES: Final = (
    "..",
    ".",
    "../outside",
    "../outside/tiny",
    f"../{CANARY}",
    f"../../{CANARY}",
    "../" * 12 + "etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "a/../../outside",
    "..\\outside",
    "..%2foutside",
    "%2e%2e%2foutside",
    "..%252foutside",
    "....//outside",
    "\u2025/outside",  # two-dot leader
    "\uff0e\uff0e\uff0foutside",  # full-width dots and slash
    "..\u2215outside",  # division slash
    "..\u2044outside",  # fraction slash
    "cifar10-resnet16\u200b",  # zero-width space
    "\u0441ifar10-resnet16",  # Cyrillic first letter
    "cifar1\uff10-resnet16",  # full-width digit
    "CIFAR10-RESNET16",
    "Cifar10-Resnet16",
    "cifar10-resnet16\0",
    "\0",
    "cifar10-resnet16\0.txt",
    "cifar10-resnet16\n",
    "cifar10-resnet16\r\nX-Evil: 1",
    " cifar10-resnet16/",
    "~",
    "~root",
    "$HOME",
    "${jndi:ldap://127.0.0.1/a}",
    "`id`",
    "$(id)",
    "; id",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "*",
    "?",
    "[a-z]*",
    "-h",
    "--help",
    ".staging-x",
    ".hidden",
    "CON",
    "nul:",
    "a" * 65,
    "a" * 255,
    "a" * 256,
    "a" * 5_000,
    "\U0001f600",
    "\u202etxt.exe",
    "+1",
    "\u0661",  # a digit of another script
    "9" * 400,
)
