"""What users feel, measured: requests, replay, resumes, steps per second, imports, sleepers. `python -m bench`."""
