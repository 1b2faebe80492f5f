"""Questions asked of any dynamical system; no file here knows a paper."""
