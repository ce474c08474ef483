package ruleset

import "encoding/binary"

// User data is what the nft tool stores with an object for itself; the kernel
// only keeps it. It is a list of (type, length, value).
//
// Source: libnftnl include/libnftnl/udata.h.
const (
	udataComment       = 0 // of tables, chains and rules
	udataSetKeyOrder   = 0
	udataSetKeyTypeof  = 3
	udataSetComment    = 7
	udataTypeofExpr    = 0
	udataTypeofData    = 1
	udataPayloadDesc   = 0
	udataPayloadType   = 1
	udataPayloadBase   = 2
	udataPayloadOffset = 3
	udataPayloadLength = 4
	orderNone          = 0
	orderHost          = 1
	orderBigEndian     = 2
	nftExprPayload     = 7
	nftBaseTransport   = 3
)

// CommentData returns the user data that holds the comment of a table, chain
// or rule; nil for none.
func CommentData(comment string) []byte {
	if comment == "" {
		return nil
	}
	return udata(nil, udataComment, []byte(comment+"\x00"))
}

// UserData returns what nft needs to list the set: its comment, and how its
// key is to be read where the kernel's own attributes do not say so.
func (s *Set) UserData() []byte {
	var b []byte
	if len(s.Key) == 1 {
		order := uint32(orderBigEndian)
		switch {
		case s.Key[0].HostOrder():
			order = orderHost
		case s.Key[0] == InetProto, s.Key[0] == NFProto:
			order = orderNone // nft's types have none
		}
		b = udata(b, udataSetKeyOrder, native(order))
	}
	if info := typeInfos[s.Key[0]]; len(s.Key) == 1 && info.quoted != 0 {
		var desc, expr []byte
		desc = udata(desc, udataPayloadDesc, native(0))
		desc = udata(desc, udataPayloadType, native(0))
		desc = udata(desc, udataPayloadBase, native(nftBaseTransport))
		desc = udata(desc, udataPayloadOffset, native(info.quoted))
		desc = udata(desc, udataPayloadLength, native(uint32(info.size)*8))
		expr = udata(expr, udataTypeofExpr, native(nftExprPayload))
		expr = udata(expr, udataTypeofData, desc)
		b = udata(b, udataSetKeyTypeof, expr)
	}
	if s.Comment != "" {
		b = udata(b, udataSetComment, []byte(s.Comment+"\x00"))
	}
	return b
}

func udata(b []byte, kind byte, value []byte) []byte {
	return append(append(b, kind, byte(len(value))), value...)
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
