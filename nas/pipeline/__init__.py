"""One module per stage: reads the files of earlier stages, does the work, writes its own."""
