CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, name TEXT, v REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO t SELECT i, (i * 7919) % 10007, 'name-' || ((i * 104729) % 65537), i * 0.5 FROM n;
COMMIT;
CREATE INDEX t_k ON t(k);
CREATE INDEX t_name ON t(name, v);
SELECT count(*), sum(v) FROM t WHERE k BETWEEN 100 AND 5000;
SELECT k % 100, count(*), avg(v), max(name) FROM t GROUP BY k % 100 ORDER BY 3 DESC;
UPDATE t SET v = v * 1.25 WHERE name LIKE '%-1%';
SELECT a.k, count(*) FROM t a JOIN t b ON a.k = b.k GROUP BY a.k ORDER BY 2 DESC, 1 LIMIT 20;
DELETE FROM t WHERE id % 3 = 0;
SELECT group_concat(name) FROM (SELECT name FROM t ORDER BY v DESC, name LIMIT 50);
SELECT sum(length(replace(upper(name), 'NAME', 'x'))) FROM t;
