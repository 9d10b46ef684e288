"""Warm runs: templates, processes with the heavy imports done, and the runs that are forked from them.

Nothing here knows Prefect. What a run executes is an entry, `package.module:function`, that travels as a string.
"""
