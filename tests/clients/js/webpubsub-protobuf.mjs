// The protobuf subprotocols of Web PubSub, for the official JavaScript client: it takes any object with these members as its
// protocol. The schema is the one of the service's documentation, with the fields of its emulator.
import protobuf from "protobufjs";

const { root } = protobuf.parse(`
  syntax = "proto3";
  package azure.webpubsub;

  message UpstreamMessage {
    oneof message {
      SendToGroupMessage send_to_group_message = 1;
      EventMessage event_message = 5;
      JoinGroupMessage join_group_message = 6;
      LeaveGroupMessage leave_group_message = 7;
      SequenceAckMessage sequence_ack_message = 8;
      PingMessage ping_message = 9;
    }
  }
  message SendToGroupMessage {
    string group = 1;
    optional uint64 ack_id = 2;
    MessageData data = 3;
    optional bool no_echo = 4;
  }
  message EventMessage {
    string event = 1;
    MessageData data = 2;
    optional uint64 ack_id = 3;
  }
  message JoinGroupMessage {
    string group = 1;
    optional uint64 ack_id = 2;
  }
  message LeaveGroupMessage {
    string group = 1;
    optional uint64 ack_id = 2;
  }
  message SequenceAckMessage {
    uint64 sequence_id = 1;
  }
  message PingMessage {}

  message DownstreamMessage {
    oneof message {
      AckMessage ack_message = 1;
      DataMessage data_message = 2;
      SystemMessage system_message = 3;
      PongMessage pong_message = 4;
    }
  }
  message AckMessage {
    uint64 ack_id = 1;
    bool success = 2;
    optional ErrorMessage error = 3;
  }
  message ErrorMessage {
    string name = 1;
    string message = 2;
  }
  message DataMessage {
    string from = 1;
    optional string group = 2;
    MessageData data = 3;
    optional uint64 sequence_id = 4;
  }
  message SystemMessage {
    oneof message {
      ConnectedMessage connected_message = 1;
      DisconnectedMessage disconnected_message = 2;
    }
  }
  message ConnectedMessage {
    string connection_id = 1;
    string user_id = 2;
    optional string reconnection_token = 3;
  }
  message DisconnectedMessage {
    string reason = 2;
  }
  message PongMessage {}

  message MessageData {
    oneof data {
      string text_data = 1;
      bytes binary_data = 2;
      Any protobuf_data = 3;
      string json_data = 4;
    }
  }
  message Any {
    string type_url = 1;
    bytes value = 2;
  }
`);

const Upstream = root.lookupType("azure.webpubsub.UpstreamMessage");
const Downstream = root.lookupType("azure.webpubsub.DownstreamMessage");
const Any = root.lookupType("azure.webpubsub.Any");

/** The protocol object; `reliable` says which of the two. */
export function protobufProtocol(reliable) {
  return {
    name: reliable ? "protobuf.reliable.webpubsub.azure.v1" : "protobuf.webpubsub.azure.v1",
    isReliableSubProtocol: reliable,
    writeMessage: write,
    parseMessages: read,
  };
}

function write(message) {
  const { group, ackId } = message;
  const data = () => written(message.data, message.dataType);
  const messages = {
    joinGroup: () => ({ joinGroupMessage: { group, ackId } }),
    leaveGroup: () => ({ leaveGroupMessage: { group, ackId } }),
    sendToGroup: () => ({ sendToGroupMessage: { group, ackId, data: data(), noEcho: message.noEcho } }),
    sendEvent: () => ({ eventMessage: { event: message.event, ackId, data: data() } }),
    sequenceAck: () => ({ sequenceAckMessage: { sequenceId: message.sequenceId } }),
    ping: () => ({ pingMessage: {} }),
  };
  const make = messages[message.kind];
  if (!make) throw new Error(`protobuf has no ${message.kind}`);
  const bytes = Upstream.encode(Upstream.fromObject(make())).finish();
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

function written(data, dataType) {
  switch (dataType) {
    case "text":
      return { textData: data };
    case "json":
      return { jsonData: JSON.stringify(data) };
    case "binary":
      return { binaryData: new Uint8Array(data) };
    case "protobuf":
      return { protobufData: Any.toObject(Any.decode(new Uint8Array(data))) };
  }
}

function read(input) {
  if (typeof input === "string") throw new Error("text came");
  const { ackMessage, dataMessage, systemMessage, pongMessage } = Downstream.decode(new Uint8Array(input));
  if (ackMessage) {
    const { ackId, success, error } = ackMessage;
    return { kind: "ack", ackId: Number(ackId), success, error: error ?? undefined };
  }
  if (dataMessage) {
    const { from, group } = dataMessage;
    // A field that did not come has a default in the prototype.
    const sequenceId = Object.hasOwn(dataMessage, "sequenceId") ? Number(dataMessage.sequenceId) : undefined;
    const [dataType, data] = payload(dataMessage.data);
    return from === "group"
      ? { kind: "groupData", group, dataType, data, sequenceId }
      : { kind: "serverData", dataType, data, sequenceId };
  }
  if (systemMessage?.connectedMessage) {
    const { connectionId, userId, reconnectionToken } = systemMessage.connectedMessage;
    return { kind: "connected", connectionId, userId, reconnectionToken: reconnectionToken || undefined };
  }
  if (systemMessage?.disconnectedMessage) {
    return { kind: "disconnected", message: systemMessage.disconnectedMessage.reason };
  }
  if (pongMessage) return { kind: "pong" };
  throw new Error("a message that the schema has not");
}

function payload(data) {
  const bytes = (array) => Uint8Array.from(array).buffer;
  switch (data?.data) {
    case "textData":
      return ["text", data.textData];
    case "jsonData":
      return ["json", JSON.parse(data.jsonData)];
    case "binaryData":
      return ["binary", bytes(data.binaryData)];
    case "protobufData":
      return ["protobuf", bytes(Any.encode(data.protobufData).finish())];
    default:
      throw new Error("a message without data");
  }
}
