"""The worker: a process that keeps model and scans warm, so that a panel neither waits nor crashes with them.

`python -m MedVAELib.worker` reads one JSON object per line from standard input and writes one per line to standard
output; volumes pass through `.npy` files. It ends when standard input does.

Requests: {"id": …, "task": "detect" | "skull" | "latent_…" | "info" | "bundles" | "describe" | "import_bundle" |
"verify_bundles", …}, {"cancel": id}, {"task": "shutdown"}.
Replies: {"event": "ready"} once; then per id any number of {"event": "progress"} and one {"event": "result"} or
{"event": "error", "kind", "exit_code", "message"}. A line that is no request gets an error with the id null.
"""
