"""
A server with the Hugging Face Hub's protocol, so that the real clients run against 127.0.0.1 in tests and by hand.

`storage` keeps repositories, commits and files in a folder; `access` knows the tokens; `repositories`, `reading` and `uploading`
have the endpoints, `server` puts them together, and `python -m tests.local_hub` runs it. `process` starts it from the tests.
"""
