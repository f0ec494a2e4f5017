// ChatServiceImpl answers ChatService with the OpenAiDoor: the same requests, the same answers, over gRPC.

#pragma once

#include "rein/v1/chat.grpc.pb.h"
#include "services/rollout/openai_door.h"

namespace rein::services {

class ChatServiceImpl final : public v1::ChatService::Service {
 public:
  // `door` must outlive the service.
  explicit ChatServiceImpl(OpenAiDoor& door) : door_(door) {}

  grpc::Status Chat(grpc::ServerContext* context, const v1::ChatRequest* request,
                    grpc::ServerWriter<v1::ChatPiece>* writer) override;

 private:
  OpenAiDoor& door_;
};

}  // namespace rein::services
