// What a PostgreSQL store has beside the tables of store_schema.h: who leads, and the fence before each write.

#pragma once

#include <array>

namespace rein::services {

// One statement each; repeating them changes nothing. controller_leader is what writes are fenced by, and its row is
// locked by each transaction; controller_lease is apart from it, so that a renewal waits for no transaction.
inline constexpr std::array<const char*, 6> kPostgresLeaderTables = {
    "SELECT pg_advisory_xact_lock(7238540412)",  // one controller at a time makes them
    "CREATE TABLE IF NOT EXISTS controller_leader (only_row BOOLEAN PRIMARY KEY CHECK (only_row), "
    "epoch BIGINT NOT NULL, commits BIGINT NOT NULL, schema_version BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS controller_lease (only_row BOOLEAN PRIMARY KEY CHECK (only_row), "
    "epoch BIGINT NOT NULL, holder TEXT NOT NULL, address TEXT NOT NULL, lease_end TIMESTAMPTZ NOT NULL)",
    // ON CONFLICT would wait for a transaction that holds the row.
    "INSERT INTO controller_leader SELECT TRUE, 0, 0, 0 WHERE NOT EXISTS (SELECT FROM controller_leader)",
    "INSERT INTO controller_lease SELECT TRUE, 0, '', '', '-infinity' WHERE NOT EXISTS (SELECT FROM controller_lease)",
    // RE001: another controller leads. RE002: this commit was done already (its answer was lost).
    R"(CREATE OR REPLACE FUNCTION rein_fence(mine BIGINT, number BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  leader controller_leader%ROWTYPE;
  lease controller_lease%ROWTYPE;
BEGIN
  SELECT * INTO STRICT leader FROM controller_leader;  -- one that was replaced waits for nobody
  IF leader.epoch = mine THEN
    SELECT * INTO STRICT leader FROM controller_leader FOR UPDATE;
  END IF;
  IF leader.epoch <> mine THEN
    SELECT * INTO STRICT lease FROM controller_lease;
    RAISE EXCEPTION 'NOT_LEADER: this controller (epoch %) was replaced by % at % (epoch %)',
      mine, lease.holder, lease.address, leader.epoch USING ERRCODE = 'RE001';
  END IF;
  IF leader.commits >= number THEN
    RAISE EXCEPTION 'commit % was done already', number USING ERRCODE = 'RE002';
  END IF;
  UPDATE controller_leader SET commits = number;
END $$)"};

// Ends the sessions of a leader, so that none of its transactions holds the fence.
inline constexpr char kEndLeaderSessions[] =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND usename = current_user AND pid <> pg_backend_pid() AND application_name = ?";

}  // namespace rein::services
