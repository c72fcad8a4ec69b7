"""Reports as text, JSON and CSV; `answer` holds those of a sizing answer."""
