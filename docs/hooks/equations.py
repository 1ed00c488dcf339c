"""Equations: ```` ```math ```` blocks and ``$`inline`$``, which code hosts draw by themselves, become MathML when the site is built.

MathML needs no script and no font from elsewhere: a browser draws it offline.
"""

from re import Match
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor


def block(source: str, language: str, css_class: str, options: Any, md: Markdown, **_: Any) -> str:
    """Return the displayed equation of a `math` fence; the signature is that of superfences' formatters."""
    return f'<div class="equation">{convert(source, display="block")}</div>'


class InlineEquation(InlineProcessor):
    """An equation within a line."""

    def handleMatch(self, m: Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802
        """Return what stands there, which nothing else is to touch, and its place."""
        return self.md.htmlStash.store(convert(m.group(1))), m.start(0), m.end(0)


class Equations(Extension):
    """Inline equations; those of their own lines come by superfences."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Before code spans, whose backticks these are too."""
        md.inlinePatterns.register(InlineEquation(r"\$`([^`]+)`\$", md), "equation", 200)


def on_config(config: Any) -> Any:
    """Make both known to the site."""
    config.markdown_extensions.append(Equations())
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "equation", "format": block})
    return config
