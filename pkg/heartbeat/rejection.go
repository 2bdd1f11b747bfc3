package heartbeat

// rejection is why a packet is not accepted; it is empty if it is.
type rejection string

const (
	accepted        rejection = ""
	rejectHops      rejection = "hops"     // a router has forwarded it
	rejectMalformed rejection = "format"   // or of another version
	rejectKey       rejection = "key"      // signed with a key that is not known
	rejectSignature rejection = "hmac"     // wrongly signed
	rejectReceiver  rejection = "receiver" // for another node
	rejectSender    rejection = "sender"   // of a node or on a link that the program does not speak of
	rejectReplay    rejection = "replay"   // was here before
	// rejectIntroduction is no fault: the first packet of a process is answered
	// before it is believed.
	rejectIntroduction rejection = "introduction"
)
