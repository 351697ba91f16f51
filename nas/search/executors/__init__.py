"""Where quality estimates run: in this process, or on Ray workers."""
