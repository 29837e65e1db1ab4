// Extended attributes: setxattr, getxattr, listxattr, removexattr. POSIX ACLs are two of them.
#include <cerrno>

#include "base/reactor.h"
#include "fuse/cluster_fs.h"

namespace fs3::fuse {
namespace {

// Linux calls a name that is too long out of range.
int take_attribute(Bytes& payload, std::string_view* name) {
  int error = take_string(payload, name, kXattrNameMax);
  return error == ENAMETOOLONG ? ERANGE : error;
}

// What the kernel asks for by itself: ACLs with every permission check of somebody who is not the
// owner, the capability with every first write and execution. The flag whose absence says no.
uint32_t flag_that_tells(std::string_view name) {
  if (name == "system.posix_acl_access") return pb::HAS_ACCESS_ACL;
  if (name == "system.posix_acl_default") return pb::HAS_DEFAULT_ACL;
  if (name == "security.capability") return pb::HAS_XATTRS;
  return 0;
}

// With size 0 the kernel wants to know how long the answer would be.
void reply_attribute(RequestPtr request, const std::string& value) {
  uint32_t size = request->arguments<fuse_getxattr_in>().size;
  if (size == 0) {
    fuse_getxattr_out out{};
    out.size = static_cast<uint32_t>(value.size());
    return reply_value(std::move(request), out);
  }
  if (value.size() > kXattrSizeMax) return reply_error(std::move(request), E2BIG);
  if (value.size() > size) return reply_error(std::move(request), ERANGE);
  reply_bytes(std::move(request), value.data(), value.size());
}

}  // namespace

void ClusterFs::setxattr(RequestPtr request) {
  Bytes payload = request->payload();
  const auto& in = request->arguments<fuse_setxattr_in>();
  std::string_view name;
  if (int error = take_attribute(payload, &name)) return reply_error(std::move(request), error);
  if (in.size != payload.size()) return reply_error(std::move(request), EINVAL);
  pb::SetXattrRequest body;
  body.set_inode(request->node());
  body.set_name(name.data(), name.size());
  body.set_value(payload.data(), payload.size());
  body.set_flags(in.flags);
  attribute_changed(std::move(request), pb::SETXATTR, body.SerializeAsString());
}

void ClusterFs::removexattr(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_attribute(payload, &name)) return reply_error(std::move(request), error);
  pb::RemoveXattrRequest body;
  body.set_inode(request->node());
  body.set_name(name.data(), name.size());
  attribute_changed(std::move(request), pb::REMOVEXATTR, body.SerializeAsString());
}

// The kernel asks for the attributes again by itself; what is remembered here is newer from now on.
void ClusterFs::attribute_changed(RequestPtr request, pb::Method method, const std::string& body) {
  call(std::move(request), method, body, 0, [this](RequestPtr request, const std::string& raw) {
    pb::AttrReply reply;
    if (!reply.ParseFromString(raw)) return reply_error(std::move(request), EIO);
    told(reply.attr(), ttl_ns(reply.lease()), 0);
    reply_error(std::move(request), 0);
  });
}

void ClusterFs::getxattr(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_attribute(payload, &name)) return reply_error(std::move(request), error);
  if (uint32_t flag = flag_that_tells(name)) {
    auto flags = nodes_.flags(request->node(), now_ns());
    if (flags && !(*flags & flag)) return reply_error(std::move(request), ENODATA);
  }
  pb::GetXattrRequest body;
  body.set_inode(request->node());
  body.set_name(name.data(), name.size());
  call_for<pb::GetXattrReply>(std::move(request), pb::GETXATTR, body,
                              [](RequestPtr request, const pb::GetXattrReply& reply) {
                                reply_attribute(std::move(request), reply.value());
                              });
}

void ClusterFs::listxattr(RequestPtr request) {
  pb::ListXattrRequest body;
  body.set_inode(request->node());
  call_for<pb::ListXattrReply>(std::move(request), pb::LISTXATTR, body,
                               [](RequestPtr request, const pb::ListXattrReply& reply) {
                                 std::string names;
                                 for (const std::string& name : reply.names()) {
                                   names.append(name).push_back('\0');
                                 }
                                 reply_attribute(std::move(request), names);
                               });
}

}  // namespace fs3::fuse
