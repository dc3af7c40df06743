-- A subscription that met an error switches itself off. Most errors are a connection that was lost, and pass: the operator
-- switches it on again, a bounded number of times, which has to be known to its successor too.

SET LOCAL lock_timeout = '2s';

ALTER TABLE ringwright.copies
    -- How often, since the last batch that was handed over; and when last.
    ADD COLUMN resumes bigint NOT NULL DEFAULT 0 CHECK (resumes >= 0),
    ADD COLUMN resumed_at timestamptz;

-- Switches a move's subscription on again after an error, and counts it; false when it runs, when the move is not copying
-- (any more), or when the last time was a moment ago: 2 s after the first, then twice as long each time, 30 s at most. A
-- clock that was set back makes no wait longer.
--
-- Whoever aborts the move writes the same row of copies first, so a call that comes late finds what was decided.
CREATE FUNCTION ringwright.resume_copy(resume_move_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    subscription CONSTANT name := ringwright.replication_name(resume_move_id);
BEGIN
    PERFORM ringwright.need_read_committed();
    IF NOT EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                   WHERE s.subname = subscription AND d.datname = current_database() AND NOT s.subenabled) THEN
        RETURN false;
    END IF;
    UPDATE ringwright.copies c SET resumes = c.resumes + 1, resumed_at = clock_timestamp()
        WHERE c.move_id = resume_move_id AND c.state = 'copying'
          AND (c.resumed_at IS NULL OR clock_timestamp() < c.resumed_at
               OR clock_timestamp() >= c.resumed_at + least(2 ^ least(c.resumes, 5), 30) * interval '1 s');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER SUBSCRIPTION %I ENABLE', subscription);
    RETURN true;
END $$;
