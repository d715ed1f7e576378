"""The peers' applications. Each runs in an environment of its own and imports nothing of this project but `photos`.

The exception is `fastapi_own`, which is FastAPI around this project's own session.
"""
