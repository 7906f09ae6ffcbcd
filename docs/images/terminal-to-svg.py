#!/usr/bin/env python3
"""A terminal's screen, with its colours, as an SVG: `tmux capture-pane -e -p | terminal-to-svg.py > picture.svg`.

Understands what a screen capture holds: text and SGR sequences. One <text> per line, so that pictures diff by line.
"""
import html
import re
import sys

WIDTH, HEIGHT, PAD = 8.43, 18, 16
FOREGROUND, BACKGROUND = "#d8dee9", "#1e222a"
COLOURS = ["#4c566a", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8dee9"]
BRIGHT = ["#7b8494", "#ef7f88", "#a9d48a", "#f0cd8c", "#74bdfa", "#d48ae6", "#67c7d3", "#ffffff"]


def apply(codes, style):
    """The style after one SGR sequence."""
    for code in [int(c or 0) for c in codes.split(";")]:
        if code == 0:
            style = {}
        elif code == 1:
            style = {**style, "font-weight": "bold"}
        elif code == 2:
            style = {**style, "opacity": "0.6"}
        elif code == 22:
            style = {k: v for k, v in style.items() if k not in ("font-weight", "opacity")}
        elif 30 <= code <= 37:
            style = {**style, "fill": COLOURS[code - 30]}
        elif code == 39:
            style = {k: v for k, v in style.items() if k != "fill"}
        elif 90 <= code <= 97:
            style = {**style, "fill": BRIGHT[code - 90]}
    return style


def spans(line, style):
    """(text, style) pairs of a line, and the style that it leaves behind."""
    out, at = [], 0
    for m in re.finditer(r"\x1b\[([0-9;]*)m", line):
        out.append((line[at : m.start()], style))
        style, at = apply(m[1], style), m.end()
    out.append((line[at:], style))
    return [(t, s) for t, s in out if t], style


def main():
    lines = [re.sub(r"\x1b\([B0]|[\x0e\x0f]", "", l.rstrip()) for l in sys.stdin.read().rstrip("\n").split("\n")]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", l) for l in lines]
    width = round(max(map(len, plain)) * WIDTH + 2 * PAD)
    height = len(lines) * HEIGHT + 2 * PAD
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">')
    print(f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>')
    print(f'<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14" fill="{FOREGROUND}" xml:space="preserve">')
    style = {}
    for row, line in enumerate(lines):
        parts, style = spans(line, style)
        y, column, body = PAD + row * HEIGHT + 13, 0, ""
        for text, look in parts:
            if text.strip():
                attributes = "".join(f' {k}="{v}"' for k, v in look.items())
                # Every run of text has its place and length, so that a wide font cannot shift the columns.
                lead = len(text) - len(text.lstrip())
                shown = text.strip()
                x = round(PAD + (column + lead) * WIDTH, 1)
                length = round(len(shown) * WIDTH, 1)
                body += f'<tspan x="{x}" textLength="{length}" lengthAdjust="spacingAndGlyphs"{attributes}>{html.escape(shown)}</tspan>'
            column += len(text)
        if body:
            print(f'<text y="{y}">{body}</text>')
    print("</g></svg>")


main()
