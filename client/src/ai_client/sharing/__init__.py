"""One upstream call for many callers: single flight and merging."""
