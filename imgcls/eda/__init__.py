"""Exploratory data analysis: what a dataset holds, from its index alone.

statistics -> duplicates -> report
"""

from imgcls.eda.duplicates import DuplicateGroup, Duplicates
from imgcls.eda.report import Profile, Unreadable, UnreadableImage, profile
from imgcls.eda.statistics import GroupStats, Range

__all__ = [
    "DuplicateGroup",
    "Duplicates",
    "GroupStats",
    "Profile",
    "Range",
    "Unreadable",
    "UnreadableImage",
    "profile",
]
