"""Reports: a run or a sweep as one self-contained HTML file that makes no network requests."""
