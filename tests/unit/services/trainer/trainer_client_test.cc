#include "services/trainer/trainer_client.h"

#include <future>

#include <gtest/gtest.h>

#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "rein/v1/trainer.grpc.pb.h"

namespace rein::services {
namespace {

// Refuses the first calls, then answers; Update waits for its caller to go away.
class ScriptedTrainer final : public v1::TrainerService::Service {
 public:
  grpc::Status Save(grpc::ServerContext*, const v1::SaveRequest* request,
                    v1::SaveReply* reply) override {
    ++calls_;
    if (request->path() == "full") return rpc::ToGrpc(absl::ResourceExhaustedError("disk full"));
    if (calls_ < 3) return rpc::ToGrpc(absl::UnavailableError("not yet"));
    reply->set_bytes(5);
    return grpc::Status::OK;
  }

  grpc::Status Update(grpc::ServerContext* context, const v1::UpdateRequest*,
                      v1::UpdateReply*) override {
    ++calls_;
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  }

  int calls() const { return calls_; }

 private:
  std::atomic<int> calls_ = 0;
};

class TrainerClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = *rpc::Server::Create("127.0.0.1:0", &service_);
    trainer_ = ConnectTrainer(server_->address());
  }

  absl::StatusOr<v1::SaveReply> Save(const std::string& path, absl::Duration deadline) {
    v1::SaveRequest request;
    request.set_path(path);
    std::promise<absl::StatusOr<v1::SaveReply>> answer;
    trainer_->Save(request, deadline, [&](auto reply) { answer.set_value(std::move(reply)); });
    return answer.get_future().get();
  }

  ScriptedTrainer service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<Trainer> trainer_;
};

TEST_F(TrainerClientTest, TriesAgainWhileUnavailable) {
  auto reply = Save("a", absl::Seconds(10));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->bytes(), 5);
  EXPECT_EQ(service_.calls(), 3);
}

TEST_F(TrainerClientTest, AFullDiskIsAnAnswer) {
  EXPECT_EQ(Save("full", absl::Seconds(10)).status(), absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(TrainerClientTest, GivesUpAtTheDeadline) {
  server_.reset();
  absl::StatusCode code = Save("a", absl::Milliseconds(200)).status().code();
  EXPECT_TRUE(code == absl::StatusCode::kUnavailable ||
              code == absl::StatusCode::kDeadlineExceeded);
}

TEST_F(TrainerClientTest, DestructionEndsCallsUnderWay) {
  std::promise<absl::Status> ended;
  trainer_->Update(v1::UpdateRequest(), absl::Seconds(60),
                   [&](auto reply) { ended.set_value(reply.status()); });
  while (service_.calls() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  trainer_.reset();
  EXPECT_EQ(ended.get_future().get().code(), absl::StatusCode::kCancelled);
}

TEST_F(TrainerClientTest, DestructionEndsCallsThatWaitForARetry) {
  server_.reset();
  std::promise<absl::Status> ended;
  trainer_->Update(v1::UpdateRequest(), absl::Seconds(60),
                   [&](auto reply) { ended.set_value(reply.status()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  trainer_.reset();
  EXPECT_FALSE(ended.get_future().get().ok());
}

}  // namespace
}  // namespace rein::services
