"""Place for named spaces as YAML data; both released spaces are code, so it is empty."""
