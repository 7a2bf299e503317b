package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
)

// As much of WebSocket (RFC 6455) as is needed, so that thousands of clients
// take little memory and time: text messages of one frame, below 64 KiB.

const (
	finalText  = 0x81
	masked     = 0x80
	length16   = 126
	maxPayload = 1<<16 - 1
)

// acceptOf answers a client's key (RFC 6455 section 1.3).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// appendFrame appends a frame. The mask that clients must use is all zeros:
// nothing between these two ends looks at it.
func appendFrame(b, payload []byte, mask bool) []byte {
	bit := byte(0)
	if mask {
		bit = masked
	}
	b = append(b, finalText)
	if len(payload) < length16 {
		b = append(b, bit|byte(len(payload)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, bit|length16), uint16(min(len(payload), maxPayload)))
	}
	if mask {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

// readFrame reads a frame into a buffer that may be used again.
func readFrame(in *bufio.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:2]); err != nil {
		return buf, err
	}
	if head[0] != finalText {
		return buf, errors.New("not a whole text message")
	}
	n := int(head[1] &^ masked)
	if n == length16 {
		if _, err := io.ReadFull(in, head[2:]); err != nil {
			return buf, err
		}
		n = int(binary.BigEndian.Uint16(head[2:]))
	}
	if head[1]&masked != 0 {
		if _, err := in.Discard(4); err != nil { // zeros, see appendFrame
			return buf, err
		}
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(in, buf)
	return buf, err
}
