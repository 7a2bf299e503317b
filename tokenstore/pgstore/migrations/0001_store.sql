-- Everything is bytes: IDs, so that they sort and compare in the same way
-- whatever a server's collation is, and places and times as this package writes
-- them (keys.go), with nanoseconds. A digest is an HMAC under the index key.

-- Which store this is, as JSON.
create table if not exists lanyard_identity (
	one      int primary key,
	revision bigint not null,
	record   text not null
);

-- A connection that was deleted stays without its record: nobody gets its ID
-- again, and the others see that it went.
create table if not exists lanyard_connections (
	id          bytea primary key,
	revision    bigint not null,
	sealed      bytea,
	due         bytea,                -- Connection.Due; null: never
	changed_at  timestamptz not null, -- when it was written, by the database's clock
	relisted_at timestamptz not null  -- when it was last made, deleted, disabled or enabled, or its status changed
);
create index if not exists lanyard_connections_changed on lanyard_connections (changed_at asc);
create index if not exists lanyard_connections_due on lanyard_connections (due asc) where due is not null;

-- What each filter shows, in the order of lists: a row for each of the eight
-- filters without labels that show a connection, and for each of its labels.
create table if not exists lanyard_lists (
	digest bytea not null,
	place  bytea not null, -- when the connection was created, then its ID
	primary key (digest, place)
);

create table if not exists lanyard_flows (
	id         bytea primary key,
	revision   bigint not null,
	sealed     bytea not null,
	taken      boolean not null, -- and not finished
	keep_until timestamptz not null
);
create index if not exists lanyard_flows_taken on lanyard_flows (taken, id) where taken;
create index if not exists lanyard_flows_old on lanyard_flows (keep_until asc);

create table if not exists lanyard_notes (
	id         bytea primary key,
	revision   bigint not null,
	sealed     bytea not null,
	keep_until timestamptz -- null: for good
);
create index if not exists lanyard_notes_old on lanyard_notes (keep_until asc) where keep_until is not null;

-- Events as they are written, without their numbers.
create table if not exists lanyard_events_new (
	id         bytea primary key, -- random, then the place among those of one write
	written_at timestamptz not null,
	sealed     bytea not null
);

create table if not exists lanyard_events (
	seq     bigint primary key,
	history bytea, -- digest of the connection's ID; null if it is of none
	sealed  bytea not null
);
create index if not exists lanyard_events_history on lanyard_events (history, seq) where history is not null;

-- Which events there are. Whoever gives new ones their numbers has this row.
create table if not exists lanyard_log (
	one    int primary key,
	oldest bigint not null,
	newest bigint not null
);
insert into lanyard_log (one, oldest, newest) values (1, 1, 0) on conflict (one) do nothing;

create table if not exists lanyard_leases (
	name  bytea primary key,
	owner bytea not null,
	until timestamptz not null
);
create index if not exists lanyard_leases_old on lanyard_leases (until asc);

-- Whether the store is being moved to another place, or from one (freeze.go).
create table if not exists lanyard_move (
	one   int primary key,
	state text not null,
	token text not null,       -- whose doing it is
	place text not null,       -- where it is now
	until timestamptz not null -- nobody goes on with it after that
);
