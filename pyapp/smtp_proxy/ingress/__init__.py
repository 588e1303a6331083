"""Serving the core: logins, group commit, pressure.

    core ──batch──▶ commit ──rows──▶ store, then "250", then ids ──▶ announce ──▶ stream
    core ──login──▶ login ──▶ tenants
    commit ──rows of limited tenants──▶ limits ──▶ tenants ──▶ Redis;  limits ──450, sessions──▶ core
    stream, store ──depth──▶ pressure ──gate──▶ core

`serve` puts the real rooms together; everything else knows them by the protocols in `ports`.
"""
