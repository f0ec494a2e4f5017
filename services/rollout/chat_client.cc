#include "services/rollout/chat_client.h"

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/chat.grpc.pb.h"

namespace rein::services {
namespace {

class GrpcChatCall final : public ChatCall {
 public:
  GrpcChatCall(const std::string& address, const std::string& body, absl::Duration deadline)
      : stub_(v1::ChatService::NewStub(rpc::Connect(address))) {
    v1::ChatRequest request;
    request.set_body(body);
    rpc::SetDeadline(context_, deadline);
    reader_ = stub_->Chat(&context_, request);
  }

  ~GrpcChatCall() override {
    if (finished_) return;
    context_.TryCancel();
    reader_->Finish();
  }

  std::optional<v1::ChatPiece> Read() override {
    v1::ChatPiece piece;
    if (!reader_->Read(&piece)) return std::nullopt;
    return piece;
  }

  absl::Status Finish() override {
    finished_ = true;
    return rpc::FromGrpc(reader_->Finish());
  }

 private:
  const std::unique_ptr<v1::ChatService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::ChatPiece>> reader_;
  bool finished_ = false;
};

}  // namespace

std::unique_ptr<ChatCall> ChatCall::Start(const std::string& address, const std::string& body, absl::Duration deadline) {
  return std::make_unique<GrpcChatCall>(address, body, deadline);
}

}  // namespace rein::services
