"""Training on procedural clips: data, judge, the stages from teacher to four-step student, and their evaluation."""
