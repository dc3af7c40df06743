-- The shop's tables. What belongs to a user carries the user's ring position in its own key, so it lies on the user's
-- shard: foreign keys hold, and a user's orders are one range of the primary key.

CREATE TABLE shop.users (
    user_id        uuid PRIMARY KEY,
    -- `tombstone`: this id was given up before its user was created, and can never be used (see contact_claims).
    state          text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'tombstone')),
    first_name     text NOT NULL,
    last_name      text NOT NULL,
    email_address  text NOT NULL,
    mobile_number  text NOT NULL,
    locale         text NOT NULL,
    time_zone      text NOT NULL,
    version        bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK (state = 'tombstone' OR (email_address LIKE '_%@_%' AND mobile_number LIKE '+_%'))
);

CREATE TABLE shop.orders (
    order_id       uuid PRIMARY KEY,
    user_id        uuid NOT NULL REFERENCES shop.users,
    status         text NOT NULL CHECK (status IN ('created', 'processed', 'cancelled')),
    -- ISO 4217; the total is in its minor units.
    currency       text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total_minor    bigint NOT NULL CHECK (total_minor >= 0),
    order_details  jsonb NOT NULL CHECK (jsonb_typeof(order_details) = 'object'),
    -- Events written for this order so far.
    event_seq      bigint NOT NULL CHECK (event_seq >= 0),
    version        bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK (ringwright.same_position(order_id, user_id))
);
CREATE INDEX orders_user_id ON shop.orders (user_id);

CREATE TABLE shop.invoices (
    invoice_id       uuid PRIMARY KEY,
    order_id         uuid NOT NULL REFERENCES shop.orders,
    number           text NOT NULL,
    invoice_details  jsonb NOT NULL CHECK (jsonb_typeof(invoice_details) = 'object'),
    version          bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CHECK (ringwright.same_position(invoice_id, order_id))
);
-- One invoice an order.
CREATE UNIQUE INDEX invoices_order_id ON shop.invoices (order_id);
CREATE UNIQUE INDEX invoices_number ON shop.invoices (number);

CREATE TABLE shop.emails (
    email_id            uuid PRIMARY KEY,
    user_email_address  text NOT NULL,
    order_id            uuid NOT NULL REFERENCES shop.orders,
    invoice_id          uuid REFERENCES shop.invoices,
    kind                text NOT NULL,
    sequence            bigint NOT NULL CHECK (sequence > 0),
    status              text NOT NULL CHECK (status IN ('queued', 'sending', 'sent', 'failed', 'unknown')),
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- Who may send it, until when; the holder is made anew by each claim.
    lease_holder        uuid,
    lease_until         timestamptz,
    provider_reference  text,
    last_error          text,
    sent_at             timestamptz,
    version             bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CHECK (ringwright.same_position(email_id, order_id)),
    -- The holder stays when the lease ends, so that a repeated answer to the same holder is known.
    CHECK (lease_until IS NULL OR lease_holder IS NOT NULL)
);
-- One email an event, however often the broker delivers it.
CREATE UNIQUE INDEX emails_event ON shop.emails (order_id, kind, sequence);
CREATE INDEX emails_invoice_id ON shop.emails (invoice_id);
CREATE INDEX emails_leased ON shop.emails (lease_until) WHERE lease_until IS NOT NULL;
-- Those left queued, few at any time: a sweeper looks for them every few seconds.
CREATE INDEX emails_queued ON shop.emails (updated_at) WHERE status = 'queued';

CREATE TABLE shop.sms (
    sms_id              uuid PRIMARY KEY,
    mobile_number       text NOT NULL,
    order_id            uuid NOT NULL REFERENCES shop.orders,
    kind                text NOT NULL,
    sequence            bigint NOT NULL CHECK (sequence > 0),
    status              text NOT NULL CHECK (status IN ('queued', 'sending', 'sent', 'failed', 'unknown')),
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    lease_holder        uuid,
    lease_until         timestamptz,
    provider_reference  text,
    last_error          text,
    sent_at             timestamptz,
    version             bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CHECK (ringwright.same_position(sms_id, order_id)),
    -- The holder stays when the lease ends, so that a repeated answer to the same holder is known.
    CHECK (lease_until IS NULL OR lease_holder IS NOT NULL)
);
CREATE UNIQUE INDEX sms_event ON shop.sms (order_id, kind, sequence);
CREATE INDEX sms_leased ON shop.sms (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX sms_queued ON shop.sms (updated_at) WHERE status = 'queued';
