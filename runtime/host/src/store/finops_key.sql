-- The F&O row of a pair by its entity's own key, where the integration key does not tell rows of the entity apart.
ALTER TABLE cross_reference ADD COLUMN finops_key TEXT;
CREATE INDEX cross_reference_by_finops_key ON cross_reference (tenant, link, map, finops_key)
    WHERE finops_key IS NOT NULL;
