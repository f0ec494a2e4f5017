#include "common/rpc/reflection.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include <grpcpp/impl/server_initializer.h>

#include "grpc/reflection/v1/reflection.grpc.pb.h"

namespace rein::rpc {
namespace {

namespace v1 = grpc::reflection::v1;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

class ReflectionService final : public v1::ServerReflection::Service {
 public:
  void SetServices(std::vector<std::string> names) { services_ = std::move(names); }

  grpc::Status ServerReflectionInfo(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::ServerReflectionResponse, v1::ServerReflectionRequest>* stream) override {
    v1::ServerReflectionRequest request;
    while (stream->Read(&request)) {
      v1::ServerReflectionResponse response;
      response.set_valid_host(request.host());
      *response.mutable_original_request() = request;
      Answer(request, response);
      if (!stream->Write(response)) break;
    }
    return grpc::Status::OK;
  }

 private:
  void Answer(const v1::ServerReflectionRequest& request, v1::ServerReflectionResponse& response) const {
    switch (request.message_request_case()) {
      case v1::ServerReflectionRequest::kListServices:
        for (const std::string& name : services_) response.mutable_list_services_response()->add_service()->set_name(name);
        return;
      case v1::ServerReflectionRequest::kFileByFilename:
        return TellFile(Pool().FindFileByName(request.file_by_filename()),
                        absl::StrCat("file ", request.file_by_filename()), response);
      case v1::ServerReflectionRequest::kFileContainingSymbol:
        return TellFile(Pool().FindFileContainingSymbol(request.file_containing_symbol()),
                        absl::StrCat("symbol ", request.file_containing_symbol()), response);
      case v1::ServerReflectionRequest::kFileContainingExtension: {
        const v1::ExtensionRequest& wanted = request.file_containing_extension();
        const auto* type = Pool().FindMessageTypeByName(wanted.containing_type());
        const FieldDescriptor* field =
            type == nullptr ? nullptr : Pool().FindExtensionByNumber(type, wanted.extension_number());
        return TellFile(field == nullptr ? nullptr : field->file(),
                        absl::StrCat("extension ", wanted.extension_number(), " of ", wanted.containing_type()), response);
      }
      case v1::ServerReflectionRequest::kAllExtensionNumbersOfType:
        return TellExtensions(request.all_extension_numbers_of_type(), response);
      case v1::ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
        break;
    }
    TellError(grpc::StatusCode::INVALID_ARGUMENT, "the request asks for nothing: set one of message_request", response);
  }

  static void TellError(grpc::StatusCode code, const std::string& message, v1::ServerReflectionResponse& response) {
    response.mutable_error_response()->set_error_code(code);
    response.mutable_error_response()->set_error_message(message);
  }

  static void TellFile(const FileDescriptor* file, const std::string& wanted, v1::ServerReflectionResponse& response) {
    if (file == nullptr) return TellError(grpc::StatusCode::NOT_FOUND, absl::StrCat("no ", wanted), response);
    std::set<const FileDescriptor*> told;
    TellWithImports(*file, told, *response.mutable_file_descriptor_response());
  }

  static void TellWithImports(const FileDescriptor& file, std::set<const FileDescriptor*>& told,
                              v1::FileDescriptorResponse& response) {
    if (!told.insert(&file).second) return;
    google::protobuf::FileDescriptorProto proto;
    file.CopyTo(&proto);
    response.add_file_descriptor_proto(proto.SerializeAsString());
    for (int i = 0; i < file.dependency_count(); ++i) TellWithImports(*file.dependency(i), told, response);
  }

  static void TellExtensions(const std::string& name, v1::ServerReflectionResponse& response) {
    const auto* type = Pool().FindMessageTypeByName(name);
    if (type == nullptr) return TellError(grpc::StatusCode::NOT_FOUND, absl::StrCat("no message ", name), response);
    std::vector<const FieldDescriptor*> extensions;
    Pool().FindAllExtensions(type, &extensions);
    response.mutable_all_extension_numbers_response()->set_base_type_name(name);
    for (const FieldDescriptor* field : extensions) {
      response.mutable_all_extension_numbers_response()->add_extension_number(field->number());
    }
  }

  std::vector<std::string> services_;
};

class Plugin final : public grpc::ServerBuilderPlugin {
 public:
  std::string name() override { return "reflection"; }
  void InitServer(grpc::ServerInitializer* server) override { server->RegisterService(service_); }
  void Finish(grpc::ServerInitializer* server) override { service_->SetServices(*server->GetServiceList()); }
  void ChangeArguments(const std::string&, void*) override {}
  bool has_sync_methods() const override { return true; }

 private:
  const std::shared_ptr<ReflectionService> service_ = std::make_shared<ReflectionService>();
};

}  // namespace

void Reflection::UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) {
  plugins->push_back(std::make_unique<Plugin>());
}

}  // namespace rein::rpc
