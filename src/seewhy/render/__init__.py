"""Maps to pictures: overlays, sheets and the HTML report."""

from __future__ import annotations

from .overlay import attribution_picture, color_bar, default_style, seen_picture
from .report import ReportPage, html_report
from .sheet import contact_sheet, explanation_sheet
from .styles import STYLES, find_style
from .superpixels import outline_top

__all__ = [
    "STYLES",
    "ReportPage",
    "attribution_picture",
    "color_bar",
    "contact_sheet",
    "default_style",
    "explanation_sheet",
    "find_style",
    "html_report",
    "outline_top",
    "seen_picture",
]
