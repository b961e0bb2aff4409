-- How many rows came with what was captured, without echoes once they are known: what `advise` says of the pace of a
-- link is measured.
ALTER TABLE captured ADD COLUMN rows INTEGER NOT NULL DEFAULT 0;
