-- What is known of the link itself, as JSON: when it was made, between which environments, and whether it has ended.
CREATE TABLE link_record (
    tenant TEXT NOT NULL,
    link   TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (tenant, link)
) STRICT, WITHOUT ROWID;
