// The tables of the controller's store, as the steps that make them.

#pragma once

#include <array>

namespace rein::services {

// Step i brings a store of schema version i to i + 1. A step that was released never changes.
inline constexpr std::array<const char*, 5> kSchemaSteps = {R"(
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, request_id TEXT NOT NULL,
  config BLOB NOT NULL, config_hash TEXT NOT NULL, state INTEGER NOT NULL, message TEXT NOT NULL,
  submitted_at REAL NOT NULL, ended_at REAL NOT NULL, max_updates INTEGER NOT NULL,
  updates_done INTEGER NOT NULL, lineage INTEGER NOT NULL, next_lineage INTEGER NOT NULL,
  digest INTEGER NOT NULL, cursor_epoch INTEGER NOT NULL, cursor_position INTEGER NOT NULL,
  skipped_in_row INTEGER NOT NULL, output TEXT NOT NULL);
CREATE TABLE events (
  job TEXT NOT NULL, sequence INTEGER NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (job, sequence)) WITHOUT ROWID;
CREATE TABLE updates (
  job TEXT NOT NULL, number INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (job, number)) WITHOUT ROWID;
CREATE TABLE checkpoints (
  job TEXT NOT NULL, number INTEGER NOT NULL, checkpoint BLOB NOT NULL,
  PRIMARY KEY (job, number)) WITHOUT ROWID;
CREATE TABLE evals (
  job TEXT NOT NULL, number INTEGER NOT NULL, result BLOB NOT NULL,
  PRIMARY KEY (job, number)) WITHOUT ROWID;
CREATE TABLE actors (
  name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, actor BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (
  job TEXT NOT NULL, sequence INTEGER NOT NULL, data_epoch INTEGER NOT NULL,
  prompt INTEGER NOT NULL, attempt INTEGER NOT NULL, state INTEGER NOT NULL,
  lineage INTEGER NOT NULL, version INTEGER NOT NULL, number INTEGER NOT NULL,
  siblings INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (job, sequence)) WITHOUT ROWID;
CREATE UNIQUE INDEX groups_by_id ON groups (job, data_epoch, prompt, attempt);
CREATE TABLE rollouts (
  job TEXT NOT NULL, sequence INTEGER NOT NULL, sibling INTEGER NOT NULL,
  segment INTEGER NOT NULL, position INTEGER NOT NULL, score BLOB NOT NULL, advantage REAL,
  PRIMARY KEY (job, sequence, sibling)) WITHOUT ROWID;
)",
                                                                R"(
ALTER TABLE jobs ADD COLUMN pausing INTEGER NOT NULL DEFAULT 0;
)",
                                                                R"(
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
)",
                                                                R"(
ALTER TABLE jobs ADD COLUMN figures BLOB;
UPDATE jobs SET figures = (SELECT record FROM updates
  WHERE job = jobs.name AND number <= jobs.updates_done ORDER BY number DESC LIMIT 1);
ALTER TABLE jobs ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollouts ADD COLUMN figures_segment INTEGER;
ALTER TABLE rollouts ADD COLUMN figures_position INTEGER;
)",
                                                                R"(
ALTER TABLE jobs ADD COLUMN actor_group TEXT NOT NULL DEFAULT '';
)"};

}  // namespace rein::services
