// ControllerClient makes the CLI's calls to the controller; each has a deadline. Of several controllers it asks the one
// that leads, and waits a while for one to lead.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

class ControllerClient {
 public:
  // `server` is host:port, several with commas; nothing is sent yet. `token` goes with each call; empty: none. `authority`: the
  // file that the server is trusted by, for errors to name; empty: none.
  explicit ControllerClient(const std::string& server, const std::string& token = "", const std::string& authority = "");
  ~ControllerClient();

  absl::StatusOr<v1::SubmitReply> Submit(const v1::SubmitRequest& request);
  absl::StatusOr<v1::Job> GetJob(const std::string& name);
  absl::StatusOr<v1::ListJobsReply> ListJobs();
  absl::StatusOr<v1::ListActorsReply> ListActors(absl::Duration deadline = absl::Seconds(30));
  absl::StatusOr<v1::LedgerSummary> GetLedger(const std::string& name);
  absl::StatusOr<v1::ListRolloutsReply> ListRollouts(const v1::ListRolloutsRequest& request);
  absl::StatusOr<v1::TraceRolloutReply> TraceRollout(const v1::TraceRolloutRequest& request);
  absl::StatusOr<v1::Job> Cancel(const std::string& name);
  absl::StatusOr<v1::Job> Pause(const std::string& name);
  absl::StatusOr<v1::DeleteJobReply> Delete(const std::string& name);
  absl::StatusOr<v1::Job> DeleteCheckpoint(const std::string& name, uint32_t number);
  absl::StatusOr<v1::ApplyRetentionReply> ApplyRetention(bool dry_run);
  absl::StatusOr<v1::ListUpdatesReply> ListUpdates(const v1::ListUpdatesRequest& request);
  absl::StatusOr<v1::Job> Resume(const v1::ResumeJobRequest& request);
  absl::StatusOr<v1::GetServerReply> GetServer(absl::Duration deadline = absl::Seconds(10));

  // Calls `on_event` for each event until it answers false, the stream ends (OK) or `deadline`
  // comes.
  absl::Status Watch(const v1::WatchRequest& request, absl::Duration deadline,
                     const std::function<bool(const v1::JobEvent&)>& on_event);
  absl::Status Logs(const v1::LogsRequest& request, absl::Duration deadline,
                    const std::function<bool(const v1::LogLine&)>& on_line);

 private:
  class Stub;

  std::unique_ptr<Stub> stub_;
};

// A request id that nobody else uses.
std::string RandomRequestId();

}  // namespace rein::cli
