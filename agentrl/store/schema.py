"""The tables of a ledger.

Another shape is another version: a ledger is read by the version that wrote it, and an index may be added to any.
"""

from __future__ import annotations

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS groups (
    id TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, task TEXT NOT NULL, size INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS trajectories (
    id TEXT PRIMARY KEY, grp TEXT NOT NULL, member INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL, batch INTEGER, payload INTEGER, status TEXT, reward REAL, success INTEGER,
    oldest INTEGER, newest INTEGER, task TEXT, outcome TEXT, steps INTEGER, tokens INTEGER, calls INTEGER,
    wrong_calls INTEGER, started REAL, seconds REAL, source TEXT, forked_from TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS trained (
    trajectory TEXT NOT NULL, batch INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (trajectory, batch));
CREATE TABLE IF NOT EXISTS head (
    one INTEGER PRIMARY KEY CHECK (one = 1), batch INTEGER NOT NULL, checkpoint TEXT NOT NULL,
    ordinal INTEGER NOT NULL, sampler TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settlements (grp TEXT PRIMARY KEY, said TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS trajectories_by_group ON trajectories (grp);
CREATE INDEX IF NOT EXISTS trajectories_by_batch ON trajectories (state, batch);
CREATE INDEX IF NOT EXISTS trajectories_by_task ON trajectories (task, status, success);
CREATE INDEX IF NOT EXISTS groups_by_state ON groups (state);
"""
