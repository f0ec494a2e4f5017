#include "services/rollout/chat_service.h"

namespace rein::services {

grpc::Status ChatServiceImpl::Chat(grpc::ServerContext* context, const v1::ChatRequest* request,
                                   grpc::ServerWriter<v1::ChatPiece>* writer) {
  http::Request asked;
  asked.body = request->body();
  http::Response response;
  door_.Complete(/*chat=*/true, asked, response);
  v1::ChatPiece piece;
  piece.set_status(static_cast<uint32_t>(response.status));
  piece.set_content_type(response.type);
  if (!response.stream) piece.set_text(response.body);
  if (!writer->Write(piece) || !response.stream) return grpc::Status::OK;
  response.stream([&](const std::string& text) {
    v1::ChatPiece next;
    next.set_text(text);
    return !context->IsCancelled() && writer->Write(next);
  });
  return grpc::Status::OK;
}

}  // namespace rein::services
