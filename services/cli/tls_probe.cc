#include "services/cli/tls_probe.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

namespace rein::cli {
namespace {

constexpr timeval kPatience = {2, 0};

// -1 when nobody listens.
int Connected(const std::string& host, const std::string& port) {
  addrinfo wanted{}, *found = nullptr;
  wanted.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host.c_str(), port.c_str(), &wanted, &found) != 0) return -1;
  int connected = -1;
  for (addrinfo* one = found; one != nullptr && connected < 0; one = one->ai_next) {
    const int descriptor = socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol);
    if (descriptor < 0) continue;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
    if (connect(descriptor, one->ai_addr, one->ai_addrlen) == 0) {
      connected = descriptor;
    } else {
      close(descriptor);
    }
  }
  freeaddrinfo(found);
  return connected;
}

std::string DateOf(const ASN1_TIME* time) {
  std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new(BIO_s_mem()), &BIO_free);
  ASN1_TIME_print(text.get(), time);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(text.get(), &bytes);
  return {bytes, static_cast<size_t>(size)};
}

std::string NamesOf(X509* certificate) {
  std::string names;
  auto* all = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(all); ++i) {
    const GENERAL_NAME* one = sk_GENERAL_NAME_value(all, i);
    char address[INET6_ADDRSTRLEN] = "";
    std::string name;
    if (one->type == GEN_DNS) {
      name.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(one->d.dNSName)), static_cast<size_t>(ASN1_STRING_length(one->d.dNSName)));
    } else if (one->type == GEN_IPADD) {
      inet_ntop(ASN1_STRING_length(one->d.iPAddress) == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(one->d.iPAddress), address, sizeof(address));
      name = address;
    }
    if (!name.empty()) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  GENERAL_NAMES_free(all);
  return names;
}

std::string Said(long verdict, X509* certificate, const std::string& server, const std::string& ca) {
  const std::string its = absl::StrCat("the certificate of ", server);
  switch (verdict) {
    case X509_V_OK:
      return "";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return absl::StrCat(its, " has expired (", DateOf(X509_get0_notAfter(certificate)),
                          "): whoever runs it makes a new one with rein certs init");
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return absl::StrCat(its, " is valid from ", DateOf(X509_get0_notBefore(certificate)), " on: is this machine's clock right?");
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::StrCat(its, " is for ", NamesOf(certificate), ": call it by one of these, or make one with rein certs init --host");
    default:
      return absl::StrCat(its, " is not of the authority in ", ca, " (", X509_verify_cert_error_string(verdict),
                          "): ask whoever runs it for its ca.crt");
  }
}

}  // namespace

std::string WhyNotTrusted(const std::string& server, const std::string& ca) {
  const size_t colon = server.rfind(':');
  if (colon == std::string::npos) return "";
  std::string host = server.substr(0, colon);
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const int descriptor = Connected(host, server.substr(colon + 1));
  if (descriptor < 0) return "";
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
  SSL_CTX_load_verify_locations(context.get(), ca.c_str(), nullptr);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);  // looked at below; nothing is said to it
  std::unique_ptr<SSL, decltype(&SSL_free)> connection(SSL_new(context.get()), &SSL_free);
  in6_addr address;
  const bool number = inet_pton(AF_INET, host.c_str(), &address) == 1 || inet_pton(AF_INET6, host.c_str(), &address) == 1;
  X509_VERIFY_PARAM* wanted = SSL_get0_param(connection.get());
  if (number) X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str());
  if (!number) X509_VERIFY_PARAM_set1_host(wanted, host.c_str(), host.size());
  SSL_set_tlsext_host_name(connection.get(), host.c_str());
  SSL_set_fd(connection.get(), descriptor);
  SSL_connect(connection.get());  // it may end it for want of a certificate: its own was seen by then
  std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(connection.get()), &X509_free);
  std::string said;
  if (certificate != nullptr) said = Said(SSL_get_verify_result(connection.get()), certificate.get(), server, ca);
  connection.reset();
  close(descriptor);
  ERR_clear_error();
  return said;
}

}  // namespace rein::cli
