-- lpad cuts what is longer: from the hundred millionth invoice of a shard on, numbers were given a second time.
--
-- `<ordinal>-<count>`, of eight digits at least: unique over all shards, also after the invoice has moved.
CREATE OR REPLACE FUNCTION ringwright.next_invoice_number() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shard integer;
    count text := nextval('ringwright.invoice_number_seq');
BEGIN
    SELECT ordinal INTO STRICT shard FROM ringwright.shard_identity;
    RETURN format('%s-%s', shard, lpad(count, greatest(8, length(count)), '0'));
END $$;
