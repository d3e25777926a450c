"""The statements of the steps. Those of every day read no more of the file than they must: a test reads their plans."""

from __future__ import annotations

from seawall.outbox.sqlite.schema import COLUMNS

MARKS = ", ".join("?" * (COLUMNS.count(",") + 1))
INSERT = f"""INSERT INTO work (ready, blocked, {COLUMNS}) SELECT ?, ?, {MARKS}
    WHERE NOT EXISTS (SELECT 1 FROM dead WHERE id = ?) ON CONFLICT (id) DO NOTHING"""
BEHIND = "SELECT 1 FROM work WHERE order_key = ? LIMIT 1"
SPAN = """SELECT ifnull((SELECT max(arrival) FROM work) - (SELECT min(arrival) FROM work) + 1, 0)
    + ifnull((SELECT max(place) FROM dead) - (SELECT min(place) FROM dead) + 1, 0)"""
COUNT = "SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM dead)"
HELD = "SELECT 1 FROM work WHERE id = ? UNION ALL SELECT 1 FROM dead WHERE id = ?"
EXPIRED = "SELECT arrival FROM work WHERE until <= ?"
EXPIRE = "UPDATE work SET until = NULL, ready = ? WHERE until <= ?"
# Not by one comparison of pairs: SQLite would read a whole lane to find the next.
NEXT_PRIORITY = """SELECT operation, priority FROM work WHERE until IS NULL AND blocked = 0
    AND operation = ? AND priority > ? ORDER BY priority LIMIT 1"""
NEXT_OPERATION = """SELECT operation, priority FROM work WHERE until IS NULL AND blocked = 0
    AND operation > ? ORDER BY operation, priority LIMIT 1"""
NEXT = """SELECT ready, arrival FROM work WHERE until IS NULL AND blocked = 0 AND operation = ? AND priority = ?
    ORDER BY ready, arrival LIMIT ?"""
FIRST_END = "SELECT min(until) FROM work WHERE until IS NOT NULL"
GIVE = "UPDATE work SET until = ?, token = ?, attempts = attempts + 1 WHERE arrival = ?"
READ = f"SELECT {COLUMNS} FROM work WHERE arrival = ?"
RENEW = "UPDATE work SET until = ? WHERE arrival = ? AND token = ?"
ORDER = "SELECT order_key FROM work WHERE arrival = ? AND token = ?"
FORGET = "DELETE FROM work WHERE arrival = ?"
UNBLOCK = """UPDATE work SET blocked = 0 WHERE blocked = 1
    AND arrival = (SELECT min(arrival) FROM work WHERE order_key = ?)"""
UNBLOCK_ALL = """UPDATE work SET blocked = 0 WHERE blocked = 1
    AND arrival IN (SELECT min(arrival) FROM work WHERE order_key IS NOT NULL GROUP BY order_key)"""
RETRY = """UPDATE work SET until = NULL, token = NULL, ready = ?, due = ?, last_error = ifnull(?, last_error),
    attempts = attempts - ? WHERE arrival = ? AND token = ?"""
BURY = f"INSERT INTO dead ({COLUMNS}) SELECT {COLUMNS} FROM work WHERE arrival = ?"
CAUSE = "UPDATE dead SET ended = ?, last_error = ? WHERE place = ?"
OLDEST_DEAD = f"SELECT place, {COLUMNS} FROM dead ORDER BY place LIMIT 1"
OLDEST_WAITING = f"SELECT arrival, {COLUMNS} FROM work WHERE until IS NULL ORDER BY arrival LIMIT 1"
DROP = f"INSERT INTO dropped ({COLUMNS}) VALUES ({MARKS})"
DROPPED = "SELECT seq FROM sqlite_sequence WHERE name = 'dropped'"
SHORTEN = "DELETE FROM dropped WHERE place <= ?"
