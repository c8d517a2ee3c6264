package awsconfig

import (
	"context"
	"io"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// PlainBodies are APIOptions for a Config of the SDK's that was not made by Load, which
// has them: the body of a request can be read, and nothing else.
//
// Without it answers break off. The SDK closes a body as soon as the answer begins,
// and from then on the body's WriteTo returns io.EOF, which is an error there, where
// its Read's is none. net/http looks behind the end of a body with WriteTo; where
// the answer is quicker than this look, it takes the request for failed and closes
// the connection, in the middle of the answer: "use of closed network connection",
// or a bare EOF for a call that was carried out. Seen with smithy-go 1.28.8 and Go
// 1.26; aws-sdk-go-v2's issues 1825, 2737 and 2935 are about the same words.
func PlainBodies() []func(*middleware.Stack) error { return []apiOption{plainBodies} }

func plainBodies(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("jumpsuite:body", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			plain, err := plainBody(req)
			if err != nil {
				return middleware.BuildOutput{}, middleware.Metadata{}, err
			}
			in.Request = plain
		}
		return next.HandleBuild(ctx, in)
	}), middleware.After)
}

// plainBody hides all but Read and Seek of a request's body; the SDK needs Seek to
// send it again. A body that cannot seek has no WriteTo that is of interest.
func plainBody(req *smithyhttp.Request) (*smithyhttp.Request, error) {
	body, ok := req.GetStream().(io.ReadSeeker)
	if !ok {
		return req, nil
	}
	return req.SetStream(struct{ io.ReadSeeker }{body})
}
